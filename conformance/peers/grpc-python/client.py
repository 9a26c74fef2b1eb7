"""Calls /shop.Cart/Get of TARGET without end; one line of JSON for each answer: what was answered, or why not."""

import json
import sys
import time

import grpc
import grpc.experimental

target, credentials = sys.argv[1:]
if credentials == "xds":
    fallback = grpc.experimental.insecure_channel_credentials()
    channel = grpc.secure_channel(target, grpc.xds_channel_credentials(fallback))
else:
    channel = grpc.insecure_channel(target)
get = channel.unary_unary("/shop.Cart/Get")

while True:
    try:
        # A google.protobuf.StringValue that holds JSON.
        answer = get(b"", timeout=5)
        line = answer[answer.index(b"{"):].decode()
    except grpc.RpcError as error:
        line = json.dumps({"error": f"{error.code().name}: {error.details()}"})
    print(line, flush=True)
    time.sleep(0.005)
