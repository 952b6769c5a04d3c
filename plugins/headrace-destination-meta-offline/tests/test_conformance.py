from headrace_sdk.testing import DestinationConformance


class TestMetaOffline(DestinationConformance):
    connector = "meta-offline"
