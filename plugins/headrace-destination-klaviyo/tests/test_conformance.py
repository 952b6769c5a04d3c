from headrace_sdk.testing import DestinationConformance


class TestKlaviyo(DestinationConformance):
    connector = "klaviyo"
