"""Checks array shapes and types of vidloc.models and vidloc.ops while the tests run (jaxtyping with beartype)."""

import jaxtyping

jaxtyping.install_import_hook(['vidloc.models', 'vidloc.ops'], 'beartype.beartype')
