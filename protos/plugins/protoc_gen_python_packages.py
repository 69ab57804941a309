"""A protoc plugin that makes our generated modules a regular, typed Python package.

protoc writes modules only. Without `__init__.py` they would form a namespace package, into which
any other distribution could merge its own modules unseen; without `py.typed` type checkers would
ignore the stubs. Vendored contracts stay as they are: their namespace is shared with others.
"""

import sys
from pathlib import PurePosixPath

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

PACKAGE = "taskforge"
DOCSTRING = '"""Generated from protos/{folder}: never edit by hand."""\n'


def main() -> None:
    """Answer with an `__init__.py` for each folder of the package, and its `py.typed`."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    folders = {
        folder for name in request.file_to_generate for folder in PurePosixPath(name).parents
    }
    for folder in sorted(folder for folder in folders if folder.parts[:1] == (PACKAGE,)):
        content = DOCSTRING.format(folder=folder)
        response.file.add(name=str(folder / "__init__.py"), content=content)
    response.file.add(name=f"{PACKAGE}/py.typed")
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
