from headrace_sdk.testing import DestinationConformance


class TestTiktokAudience(DestinationConformance):
    connector = "tiktok-audience"
