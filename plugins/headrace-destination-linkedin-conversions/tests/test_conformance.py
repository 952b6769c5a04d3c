from headrace_sdk.testing import DestinationConformance


class TestLinkedinConversions(DestinationConformance):
    connector = "linkedin-conversions"
