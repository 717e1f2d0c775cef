"""The demo's student with FD3D and the query term."""

_base_ = ["./student.py", "../_base_/fd3d.py"]

teacher = "./teacher.py"
