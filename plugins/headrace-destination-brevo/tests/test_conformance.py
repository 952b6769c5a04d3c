from headrace_sdk.testing import DestinationConformance


class TestBrevo(DestinationConformance):
    connector = "brevo"
