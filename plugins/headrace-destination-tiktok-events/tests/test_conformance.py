from headrace_sdk.testing import DestinationConformance


class TestTiktokEvents(DestinationConformance):
    connector = "tiktok-events"
