"""python -m vidloc.benchmarks.torch_peer MODEL: models of transformers, to run beside ours (benchmarks/backbones.py).

Needs torch and transformers; weights are random. Prints a line when ready, then, for every line it is given, runs that
mode once and prints {"seconds": ..., "cpu_s": ...}.
"""

import json
import os
import resource
import sys
import time
from typing import Any

CLASSES = 400


def _videomae(transformers: Any) -> tuple[Any, str, int, int]:
    """VideoMAE-B, which is what the settings say unless told otherwise."""
    settings = transformers.VideoMAEConfig(num_labels=CLASSES, attn_implementation='sdpa')
    return transformers.VideoMAEForVideoClassification(settings), 'pixel_values', 16, 224


def _vjepa2(transformers: Any) -> tuple[Any, str, int, int]:
    """V-JEPA 2 L with its attentive pooler, likewise."""
    settings = transformers.VJEPA2Config(num_labels=CLASSES, frames_per_clip=16, attn_implementation='sdpa')
    return transformers.VJEPA2ForVideoClassification(settings), 'pixel_values_videos', 16, 256


MODELS = {'videomae': _videomae, 'vjepa2': _vjepa2}


def main() -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(os.cpu_count() or 1)
    model, name, frames, side = MODELS[sys.argv[1]](transformers)
    model.eval()
    video = {name: torch.randn(1, frames, 3, side, side)}
    versions = {'torch': torch.__version__, 'transformers': transformers.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        if line.strip() == 'forward':
            with torch.inference_mode():
                model(**video)
        else:
            model.zero_grad()
            model(**video, labels=torch.zeros(1, dtype=torch.long)).loss.backward()
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({'seconds': seconds, 'cpu_s': used}), flush=True)


if __name__ == '__main__':
    main()
