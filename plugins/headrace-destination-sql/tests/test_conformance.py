from headrace_sdk.testing import DestinationConformance


class TestSql(DestinationConformance):
    connector = "sql"
