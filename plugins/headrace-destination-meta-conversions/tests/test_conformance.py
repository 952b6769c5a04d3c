from headrace_sdk.testing import DestinationConformance


class TestMetaConversions(DestinationConformance):
    connector = "meta-conversions"
