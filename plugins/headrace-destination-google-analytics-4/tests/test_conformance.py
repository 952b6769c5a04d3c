from headrace_sdk.testing import DestinationConformance


class TestGoogleAnalytics4(DestinationConformance):
    connector = "google-analytics-4"
