from headrace_sdk.testing import DestinationConformance


class TestMetaAudience(DestinationConformance):
    connector = "meta-audience"
