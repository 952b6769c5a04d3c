from headrace_sdk.testing import DestinationConformance


class TestSlack(DestinationConformance):
    connector = "slack"
