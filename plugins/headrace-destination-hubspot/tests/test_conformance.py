from headrace_sdk.testing import DestinationConformance


class TestHubspot(DestinationConformance):
    connector = "hubspot"
