"""What a trained head says of every sample of a store, written there as a layer."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from torch import Tensor
from tqdm import tqdm

from cache_schema.array_spec import ArraySpec
from cache_schema.detections import DETECTION_ARRAYS, MAX_DETECTIONS, detection_arrays
from cache_schema.disk_room import explained, missing_nbytes
from cache_schema.errors import AlreadyPublished
from cache_schema.layers import begin_layer
from cache_schema.spec import FocalFacts, LayerFacts, NumericsFacts, OutputFacts, StoreSpec, TeacherFacts
from cache_schema.storage import StorePath
from camera3d.boxes import BOX_CONVENTION, query_box_encoding
from camera3d.data.scene_shares import scenes_of_part
from camera3d.detectors import Detector
from camera3d.detectors.builder import plain_config
from camera3d.fixed_numerics import fixed_numerics
from camera3d.instance_areas import query_confidence
from camera3d.ops import describe_backends
from camera3d.streaming import detections_of
from train.distillation_head.data import StoredFrames
from train.distillation_head.setting import HeadSetting
from train.engine.options import HeadOptions

QUERIES_AT_MOST = 300  # that a sample keeps


def append_layer(
    head: Detector, setting: HeadSetting, options: HeadOptions, device: torch.device
) -> StorePath:
    """Run the head over the store's maps and publish what it says, scene by scene; returns the layer's place.

    Run again after whatever ended it, it does what is missing. Processes of torchrun share the scenes;
    the first one seals the layer.

    Raises:
        FingerprintMismatch: a layer of this name is of another head.
        NotWritable: the disk is full, or does not let us write.
        CacheError: as the store's reader and writer do.
    """
    reader, planned = setting.reader, setting.planned
    head = head.to(device).eval()
    with fixed_numerics(options.threads) as threads:
        spec = layer_spec(head, setting, min_score=options.min_score, device=device, threads=threads)
        with explained(setting.place, lambda: missing_nbytes(setting.place, spec, planned)):
            writer = begin_layer(reader.path, options.layer, spec, planned)
            writer.remove_abandoned()
            writer.write_teacher_head(on_host(head.head_weights()))
            mine = scenes_of_part(planned, get_rank(), get_world_size())
            todo = setting.index.select([name for name in mine if not writer.is_published(name)])
            sample_of = _Sample(head, spec, StoredFrames(reader, head.inputs), options.min_score, device)
            bar = tqdm(total=len(todo), unit="sample", desc="layer", disable=not is_main_process())
            with bar:
                for scene in todo.scenes:
                    samples = [(frame.sample_token, frame.timestamp_us) for frame in scene.frames]
                    # Of two at the same work one publishes, and both wrote the same.
                    with (
                        contextlib.suppress(AlreadyPublished),
                        writer.scene(scene.name, scene.token, samples) as open_scene,
                    ):
                        for token, _ in samples:
                            arrays, confident = sample_of(token)
                            open_scene.append(token, arrays, areas={}, confident=confident)
                            bar.update()
            barrier()  # every process has published its part
            if is_main_process() and not writer.missing_scenes():
                writer.seal()
                print_log(f"layer {setting.place} is complete", "current")
    return setting.place


def layer_spec(
    head: Detector, setting: HeadSetting, *, min_score: float, device: torch.device, threads: int
) -> StoreSpec:
    """What the layer will say about itself: of `teacher` the head, of the rest what its store says."""
    store, bev_map = setting.reader.spec, setting.bev_map
    backends = describe_backends(device).items()
    return StoreSpec(
        profile="focal",
        arrays=(*(ArraySpec.of_output(spec) for spec in head.output_specs((1, 1))), *detection_arrays()),
        teacher=TeacherFacts(
            detector=Path(setting.config.filename or "head").stem,
            config=plain_config(setting.config.model),
            regime=f"distillation head: sample by sample, {bev_map.name} as the store keeps it",
            trained=True,
            checkpoint_sha256=digest_of_weights(head.state_dict()),
        ),
        inputs=store.inputs,
        outputs=OutputFacts(
            class_names=head.class_names,
            box_convention=BOX_CONVENTION,
            query_box_encoding=query_box_encoding(bev_map.frame),
            not_stored=(),
        ),
        dataset=store.dataset,
        numerics=NumericsFacts(
            version=head.numerics_version,
            op_backend=", ".join(f"{op}: {backend}" for op, backend in backends),
            device=device.type,
            compute_dtype="float32",
            tf32=False,
            deterministic=True,
            threads=threads,
        ),
        focal=FocalFacts(min_score=min_score, background_block=1, areas={"at_most": QUERIES_AT_MOST}),
        layer=LayerFacts(store_digest=setting.reader.digest, reads=bev_map.name),
    )


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values. A file of them is no guide: its bytes hold its own name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def on_host(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """As a store takes them: float32 arrays."""
    return {name: values.detach().float().cpu().numpy() for name, values in weights.items()}


class _Sample:
    """What a layer stores of a sample: its arrays, and which queries are kept."""

    def __init__(
        self,
        head: Detector,
        spec: StoreSpec,
        frames: StoredFrames,
        min_score: float,
        device: torch.device,
    ) -> None:
        self.head, self.frames, self.min_score, self.device = head, frames, min_score, device
        self.arrays, self.specs = spec.arrays, head.output_specs((1, 1))

    def __call__(self, sample_token: str) -> tuple[dict[str, object], object]:
        frame = {name: values.to(self.device) for name, values in self.frames(sample_token).items()}
        with torch.inference_mode():
            outputs, _ = self.head.encode(frame)
            found = detections_of(self.head, self.specs, outputs, sample_token).best(MAX_DETECTIONS)
        tensors = {name: values[0] for name, values in outputs.items()}
        tensors |= dict(zip(DETECTION_ARRAYS, found, strict=True))
        stored = {array.name: tensors[array.name].to(getattr(torch, array.dtype)) for array in self.arrays}
        # Of the stored numbers, as a training will ask.
        score = query_confidence(
            stored["query_logits"][-1].float(), min_score=self.min_score, at_most=QUERIES_AT_MOST
        )
        return {name: values.cpu().numpy() for name, values in stored.items()}, (score > 0).cpu().numpy()
