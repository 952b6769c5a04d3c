from headrace_sdk.testing import DestinationConformance


class TestWebhook(DestinationConformance):
    connector = "webhook"
