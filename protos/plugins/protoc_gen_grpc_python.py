"""A protoc plugin that makes the gRPC stubs for Python and their types.

buf can run protoc's built-in generators, but the one for gRPC is built into `grpc_tools.protoc`
alone. This plugin reads the request that buf sends, hands its descriptors to that protoc, and
answers with the modules it made. The types come from mypy-protobuf, which is asked for the same
files, since by itself it also types modules that do not exist: those of files without a service.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def add_modules(request: CodeGeneratorRequest, response: CodeGeneratorResponse) -> None:
    """Add the `*_pb2_grpc.py` of each file to generate."""
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        arguments = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *arguments, *request.file_to_generate]) != 0:
            response.error = "grpc_tools.protoc failed; its message is above"
            return
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())


def add_types(request: CodeGeneratorRequest, response: CodeGeneratorResponse) -> None:
    """Add the `*_pb2_grpc.pyi` of each file to generate."""
    command = [str(Path(sys.executable).with_name("protoc-gen-mypy_grpc"))]
    made = subprocess.run(
        command, input=request.SerializeToString(), stdout=subprocess.PIPE, check=True
    )
    response.MergeFrom(CodeGeneratorResponse.FromString(made.stdout))


def main() -> None:
    """Answer the request on standard input."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    with_service = {file.name for file in request.proto_file if file.service}
    names = [name for name in request.file_to_generate if name in with_service]
    request.ClearField("file_to_generate")
    request.file_to_generate.extend(names)
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    if names:
        add_modules(request, response)
        add_types(request, response)
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
