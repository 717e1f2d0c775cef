"""The demo's streamed student with FD3D and the query term."""

_base_ = ["./student_stream.py", "../_base_/fd3d.py"]

teacher = "./teacher.py"
