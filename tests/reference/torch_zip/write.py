"""Writes the files of this folder with torch; their numbers are those of test_torch_zip.py. Run once, see README.md."""

import argparse
import collections
import pathlib
import sys

import torch


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)


def state_dict() -> collections.OrderedDict:
    base = ramp(4, 6)
    norm = torch.nn.LayerNorm(3).state_dict()  # an OrderedDict with _metadata
    values = {
        'float32': ramp(2, 3),
        'float16': ramp(2, 3, dtype=torch.float16),
        'bfloat16': ramp(2, 3, dtype=torch.bfloat16) * 8.5,
        'float64': ramp(3, dtype=torch.float64),
        'int64': ramp(3, dtype=torch.int64) - (1 << 40),
        'uint8': ramp(3, dtype=torch.uint8),
        'bool': torch.tensor([True, False, True]),
        'complex64': torch.complex(ramp(2), -ramp(2)),
        'uint16': torch.tensor([1, 65535], dtype=torch.uint16),
        'whole': base,
        'transposed': base.t(),
        'sliced': base[1:3, 2:5],
        'strided': base[::2, 1::3],
        'column': base[:, 4],
        'expanded': base[0, 3:4].expand(5, 1),
        'parameter': torch.nn.Parameter(ramp(2, 2)),
        'scalar': torch.tensor(7.5),
        'empty': torch.empty(0, 3),
    }
    norm.update(values)
    norm['attributes'] = ramp(2)
    norm['attributes'].note = 'kept nowhere'
    return norm


def checkpoint() -> dict:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(ramp(2, 3))
        layer.bias.copy_(ramp(2))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.125)
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 3), torch.zeros(2)
    optimizer.step()
    args = argparse.Namespace(
        lr=0.125, betas=[0.9, 0.95], output=pathlib.PurePosixPath('/out/run'), device=torch.device('cuda', 1),
        dtype=torch.bfloat16, size=torch.Size([2, 3]), names={'b'}, version=torch.__version__, weight=ramp(2),
    )  # fmt: skip
    return {
        'model': layer.state_dict(),
        'optimizer': optimizer.state_dict(),
        'epoch': 3,
        'args': args,
        'counts': collections.defaultdict(int, {'seen': 5}),
        'scaler': {'scale': 65536.0, '_growth_tracker': 0},
    }


def probes() -> dict:
    heads = [{'module.linear.weight': ramp(2, 3) + number, 'module.linear.bias': ramp(2)} for number in range(2)]
    return {'classifiers': heads, 'opt': [None, {'lr': 0.5}], 'epoch': 20, 'batch_size': 4}


def settings() -> dict:
    from addict import Dict
    from easydict import EasyDict
    from omegaconf import OmegaConf
    from yacs.config import CfgNode

    nested = {'name': 'vit', 'model': {'depth': 12, 'sizes': [14, 16]}}
    return {
        'weight': ramp(2),
        'yacs': CfgNode(nested),
        'easydict': EasyDict(nested),
        'addict': Dict(nested),
        'omegaconf': OmegaConf.create({**nested, 'rate': 0.5, 'on': True, 'path': '${name}/x'}),
    }


def main(folder: pathlib.Path) -> None:
    torch.save(state_dict(), folder / 'state_dict.pt')
    torch.save(state_dict(), folder / 'legacy.pt', _use_new_zipfile_serialization=False)
    torch.save(checkpoint(), folder / 'checkpoint.pt')
    torch.save(probes(), folder / 'probes.pt')
    torch.save(settings(), folder / 'settings.pt')
    torch.save(ramp(2), folder / 'tensor.pt')
    torch.save(torch.nn.Linear(2, 1), folder / 'module.pt')
    torch.save({'q': torch.quantize_per_tensor(ramp(3), 0.5, 0, torch.qint8)}, folder / 'quantised.pt')
    torch.save({'s': torch.eye(2).to_sparse()}, folder / 'sparse.pt')
    torch.save({'m': torch.empty(3, device='meta')}, folder / 'meta.pt')
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(folder / 'script.pt'))


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
