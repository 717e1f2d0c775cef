"""RetinaNet's student with masked generation inside the boxes."""

_base_ = ["./retinanet_student.py", "../_base_/mgd.py"]

teacher = "./retinanet_teacher.py"
