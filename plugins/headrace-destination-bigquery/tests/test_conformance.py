from headrace_sdk.testing import DestinationConformance


class TestBigquery(DestinationConformance):
    connector = "bigquery"
