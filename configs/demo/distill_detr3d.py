"""DETR3D's student with FD3D on image maps and queries."""

_base_ = ["./detr3d_student.py", "../_base_/fd3d.py"]

teacher = "./detr3d_teacher.py"

distiller = dict(
    terms=dict(
        _delete_=True,
        pv_generation=dict(weight=0.02, mask_ratio=0.5),
        focal=dict(weight=0.05),
        query=dict(logit_weight=2.0, box_weight=0.25),
    )
)
