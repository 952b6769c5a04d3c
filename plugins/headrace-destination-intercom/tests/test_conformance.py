from headrace_sdk.testing import DestinationConformance


class TestIntercom(DestinationConformance):
    connector = "intercom"
