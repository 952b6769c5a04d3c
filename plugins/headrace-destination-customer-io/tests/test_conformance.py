from headrace_sdk.testing import DestinationConformance


class TestCustomerIo(DestinationConformance):
    connector = "customer-io"
