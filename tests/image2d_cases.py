"""mmdet's own configs, made so small that they run in a test."""

from __future__ import annotations

from pathlib import Path

from coco_cases import CLASSES

ROOT = Path(__file__).parents[1]

MEAN_STD = "mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), to_rgb=True"
BACKBONE = "dict(depth=18, base_channels=8, frozen_stages=-1, init_cfg=None)"
CHANNELS = "[8, 16, 32, 64]"
FPN = f"dict(in_channels={CHANNELS}, out_channels=16)"
K = len(CLASSES)
HEAD = f"dict(num_classes={K}, in_channels=16, feat_channels=16, stacked_convs=1)"
GFL_HEAD = HEAD.replace("stacked_convs=1", "stacked_convs=1, norm_cfg=dict(type='GN', num_groups=4)")


def small_detr(width: int) -> str:
    """What is made smaller of a DETR: layers, queries, and the width of its embedding."""
    ffn = f"dict(embed_dims={width}, feedforward_channels=32)"
    attention = f"dict(embed_dims={width})"
    return f"""num_queries=12,
    neck=dict(in_channels=[16, 32, 64], out_channels={width}, norm_cfg=dict(num_groups=4)),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg={attention}, ffn_cfg={ffn})),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg={attention}, cross_attn_cfg={attention}, ffn_cfg={ffn})),
    positional_encoding=dict(num_feats={width // 2}),
    bbox_head=dict(num_classes={K}, embed_dims={width}),
    test_cfg=dict(max_per_img=10)"""


# By name: mmdet's config, what is made smaller, the strides of its neck and the channels of its maps.
DETECTORS = {
    "retinanet": (
        "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
        f"neck={FPN}, bbox_head={HEAD}, test_cfg=dict(score_thr=0.001, max_per_img=20)",
        (8, 16, 32, 64, 128),
        16,
    ),
    "gfl": (
        "mmdet::gfl/gfl_r50_fpn_1x_coco.py",
        f"neck={FPN}, bbox_head={GFL_HEAD}, test_cfg=dict(score_thr=0.001, max_per_img=20)",
        (8, 16, 32, 64, 128),
        16,
    ),
    "faster_rcnn": (
        "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        f"""neck={FPN},
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes={K})),
    train_cfg=dict(rpn_proposal=dict(nms_pre=100, max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=30), rcnn=dict(score_thr=0.001, max_per_img=20))""",
        (4, 8, 16, 32, 64),
        16,
    ),
    "deformable_detr": (
        "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
        small_detr(32),
        (8, 16, 32, 64),
        32,
    ),
    # mmdet's DINO encodes positions in 256 numbers, whatever its config says.
    "dino": ("mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py", small_detr(256), (8, 16, 32, 64), 256),
}

TEACHER = """
_base_ = ['{root}/configs/_base_/schedule_2d.py']
class_names = {classes}
dataset = dict(type='coco', images_per_group=2)
model = dict(
    type='MMDetDetector',
    class_names=class_names,
    detector=dict(config='{config}', backbone={backbone}, {small}),
    pv_strides={strides},
    pv_channels={channels})
inputs = dict(resize='keep_ratio', fit=(64, 96), scale=1.0, pad_hw=(96, 96), {mean_std})
distort = False
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(batch_size=2, num_workers=0)
log_interval = 1
"""
STUDENT = """
_base_ = './{name}.py'
teacher = './{name}.py'
distiller = dict(init_from_teacher='head', terms={terms}, areas=dict(min_score=0.001))
"""


def write_config(folder: Path, name: str) -> Path:
    """The config of one of DETECTORS."""
    config, small, strides, channels = DETECTORS[name]
    path = folder / f"{name}.py"
    path.write_text(
        TEACHER.format(
            root=ROOT,
            classes=CLASSES,
            config=config,
            backbone=BACKBONE,
            small=small,
            strides=strides,
            channels=channels,
            mean_std=MEAN_STD,
        )
    )
    return path


def write_distillation(folder: Path, name: str, terms: str) -> Path:
    """A student of the same config as its teacher, with these terms."""
    path = folder / f"distill_{name}.py"
    path.write_text(STUDENT.format(name=name, terms=terms))
    return path
