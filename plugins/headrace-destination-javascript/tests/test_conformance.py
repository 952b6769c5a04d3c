from headrace_sdk.testing import DestinationConformance


class TestJavascript(DestinationConformance):
    connector = "javascript"
