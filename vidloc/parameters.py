"""How many parameters of a model train, by what they are for."""

from vidloc.models import lora
from vidloc.train import trainable

# Patterns over canonical names, the first that matches counts; the rest is 'other'.
KINDS = {'lora': rf'(.*/)?({"|".join(lora.LEAVES)})', 'film': r'film/.*', 'heads': r'heads_[^/]*/.*'}


def by_kind(partition: trainable.Partition) -> dict[str, int]:
    """{kind of KINDS, or 'other': trainable parameters}"""
    return partition.by_kind(KINDS)


def overview(partition: trainable.Partition) -> str:
    """The parameter table as text; where LoRA or FiLM train, also how many parameters of each kind do."""
    counts = by_kind(partition)
    if not (counts['lora'] or counts['film']):
        return partition.overview()
    told = ' + '.join(f'{kind} {count:,}' for kind, count in counts.items())
    return f'{partition.overview()}\nTrainable by kind: {told} = {sum(counts.values()):,}'
