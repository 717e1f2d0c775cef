"""mmengine's loops, with what exact resume and the official evaluations need."""

from __future__ import annotations

from mmengine.evaluator import Evaluator
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch.utils.data import DataLoader

from camera3d.data.datasets import COCO
from camera3d.detectors.protocol import Detections
from camera3d.evaluation import evaluate_detector
from train.engine.averaging import kept_detector
from train.engine.pictures import held_out_picture, shown_frame


@LOOPS.register_module()
class ExactEpochLoop(EpochBasedTrainLoop):
    """Epochs that can be taken up again in their middle: the frames already seen are not even loaded."""

    def run_epoch(self) -> None:
        """The rest of the current epoch."""
        loader = self.dataloader
        done = self._iter - self._epoch * len(loader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        loader.dataset.set_epoch(self._epoch)
        loader.sampler.set_epoch(self._epoch, done * loader.batch_size)
        for number, batch in enumerate(loader, start=done):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class EvaluationLoop(BaseLoop):
    """Scores the student as its dataset is scored, and shows one frame of nuScenes in TensorBoard.

    `dataloader` carries the frames, which are streamed by scene.
    """

    def __init__(
        self, runner: object, dataloader: DataLoader, evaluator: Evaluator, *, out_dir: str, workers: int = 2
    ) -> None:
        super().__init__(runner, dataloader)
        self.out_dir, self.workers = out_dir, workers

    def run(self) -> dict[str, float]:
        """The metrics' `summary`, also handed to mmengine's hooks."""
        runner, frames = self.runner, self.dataloader.dataset
        runner.call_hook("before_val")
        runner.call_hook("before_val_epoch")
        detector = kept_detector(runner)
        shown = None if frames.index.dataset == COCO else shown_frame(frames.index)
        seen: dict[str, Detections] = {}

        def watch(token: str, found: Detections) -> None:
            if token == shown.sample_token:
                seen[token] = found

        metrics = evaluate_detector(
            detector,
            frames.index,
            frames.pipeline,
            frames.dataroot,
            version=frames.index.version,
            split=frames.index.split,
            out_dir=self.out_dir,
            device=next(detector.parameters()).device,
            workers=self.workers,
            watch=None if shown is None else watch,
        )
        runner.model.train()
        for found in seen.values():  # in the first process
            picture = held_out_picture(shown, found, frames.dataroot)
            board = runner.visualizer.get_backend("TensorboardVisBackend")
            board.add_image("held-out frame", picture, step=runner.iter)
        summary = metrics.summary
        runner.call_hook("after_val_epoch", metrics=summary)
        runner.call_hook("after_val")
        return summary
