from headrace_sdk.testing import DestinationConformance


class TestLinkedinAudience(DestinationConformance):
    connector = "linkedin-audience"
