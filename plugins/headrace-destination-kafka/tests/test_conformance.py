from headrace_sdk.testing import DestinationConformance


class TestKafka(DestinationConformance):
    connector = "kafka"
