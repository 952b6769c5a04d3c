from headrace_sdk.testing import DestinationConformance


class TestGoogleAdsAudience(DestinationConformance):
    connector = "google-ads-audience"
