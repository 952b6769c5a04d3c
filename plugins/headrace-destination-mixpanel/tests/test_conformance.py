from headrace_sdk.testing import DestinationConformance


class TestMixpanel(DestinationConformance):
    connector = "mixpanel"
