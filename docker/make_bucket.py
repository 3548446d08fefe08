"""`make_bucket.py NAME`: make a bucket of the S3-compatible storage in AWS_ENDPOINT_URL, unless it is there."""

from __future__ import annotations

import sys

import boto3
from botocore.exceptions import ClientError


def make(name: str) -> str:
    """What was done."""
    storage = boto3.client("s3")
    try:
        storage.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
        return f"bucket {name} is there"
    return f"made bucket {name}"


if __name__ == "__main__":
    print(make(sys.argv[1]))
