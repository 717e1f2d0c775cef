"""The DCNv2 layer: names and shapes of mmcv's, built by mmdet's ResNet, the same numbers out."""

import pytest
import torch
from mmcv.cnn import build_conv_layer
from mmdet.models.backbones import ResNet
from mmengine.registry import DefaultScope

from camera3d.layers.deform_conv import FocalDCNv2
from camera3d.ops.backend import mmcv_function

DCN = {"type": "FocalDCNv2", "deform_groups": 1, "fallback_on_stride": False}
needs_mmcv = pytest.mark.skipif(
    mmcv_function("modulated_deform_conv2d") is None, reason="mmcv has no compiled extension"
)


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("deform_groups", [1, 4])
def test_parameters(deform_groups):
    layer = FocalDCNv2(8, 16, 3, padding=1, deform_groups=deform_groups, bias=False)
    assert shapes(layer) == {
        "weight": (16, 8, 3, 3),
        "conv_offset.weight": (27 * deform_groups, 8, 3, 3),
        "conv_offset.bias": (27 * deform_groups,),
    }
    assert FocalDCNv2(8, 16, 3).bias.shape == (16,)


@needs_mmcv
@pytest.mark.parametrize(
    "options", [{}, {"deform_groups": 2, "stride": 2}, {"groups": 2, "bias": False}], ids=str
)
def test_same_numbers_as_mmcvs_layer(options):
    from mmcv.ops import ModulatedDeformConv2dPack

    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, **options}
    mmcvs, ours = ModulatedDeformConv2dPack(8, 12, **options), FocalDCNv2(8, 12, **options)
    torch.nn.init.normal_(mmcvs.conv_offset.weight, std=0.2)
    torch.nn.init.normal_(mmcvs.conv_offset.bias)
    assert list(shapes(ours).items()) == list(shapes(mmcvs).items())
    ours.load_state_dict(mmcvs.state_dict(), strict=True)
    x = torch.randn(2, 8, 9, 11)
    torch.testing.assert_close(ours(x), mmcvs(x), rtol=1e-5, atol=1e-5)


def test_starts_as_a_convolution_at_half_strength():
    layer = FocalDCNv2(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 6, 6)
    expected = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1) / 2
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("scope", [None, "mmdet", "mmdet3d"])
def test_found_from_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        layer = build_conv_layer({"type": "FocalDCNv2"}, 4, 8, kernel_size=3, padding=1, bias=False)
    assert isinstance(layer, FocalDCNv2)


def test_in_a_resnet():
    torch.manual_seed(0)
    backbone = ResNet(
        depth=50,
        base_channels=8,
        norm_cfg={"type": "BN2d", "requires_grad": False},
        norm_eval=True,
        style="caffe",
        dcn=dict(DCN),
        stage_with_dcn=(False, False, True, True),
    )
    layers = {name: m for name, m in backbone.named_modules() if isinstance(m, FocalDCNv2)}
    # Caffe style strides in the 1×1 convolution, so every 3×3 of the two stages can deform.
    assert len(layers) == 6 + 3
    assert all(name.endswith(".conv2") for name in layers)
    assert "layer3.0.conv2.conv_offset.bias" in backbone.state_dict()

    backbone.init_weights()
    for layer in layers.values():
        assert torch.count_nonzero(layer.conv_offset.weight) == 0
        assert torch.count_nonzero(layer.conv_offset.bias) == 0
        assert layer.weight.std() > 0
    out = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in out] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    out[-1].sum().backward()
    assert layers["layer4.0.conv2"].weight.grad is not None
