from headrace_sdk.testing import DestinationConformance


class TestGoogleAdsConversions(DestinationConformance):
    connector = "google-ads-conversions"
