from headrace_sdk.testing import DestinationConformance


class TestGoogleSheets(DestinationConformance):
    connector = "google-sheets"
