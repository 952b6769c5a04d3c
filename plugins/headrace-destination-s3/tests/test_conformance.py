from headrace_sdk.testing import DestinationConformance


class TestS3(DestinationConformance):
    connector = "s3"
