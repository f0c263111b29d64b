"""Installs vidloc: `pip install .`, with extras test, cuda, tpu and parity."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

setuptools.setup(
    name='vidloc',
    version='0.1.0',
    description='Finding human actions in video, in space and in time, in JAX.',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=setuptools.find_packages(include=['vidloc', 'vidloc.*']),
    package_data={'vidloc.synthetic': ['*.npz']},
    python_requires='>=3.11,<3.14',
    install_requires=[
        'absl-py>=2.1',
        'array-record>=0.8.1',
        'av>=18.0',
        'clu>=0.0.12',
        'dm-pix>=0.4.3',
        'flax>=0.12',
        'grain>=0.2.12',
        'jax>=0.10',
        'jaxtyping>=0.3',
        'ml-collections>=1.0',
        'numpy>=2.0',
        'optax>=0.2.5',
        'orbax-checkpoint>=0.11.30',
        'pillow>=11.0',
        'pyarrow>=18.0',
        'tensorboardX>=2.6',
        'tensorflow-datasets>=4.9.10',
        'tqdm>=4.66',
    ],
    extras_require={
        'test': ['beartype>=0.20', 'pytest>=8.3', 'pytest-xdist>=3.6', 'ruff>=0.9'],
        'cuda': ['jax[cuda12]>=0.10'],
        'tpu': ['jax[tpu]>=0.10'],
        'parity': ['peft>=0.18', 'qwix>=0.1.6', 'torch>=2.6', 'transformers>=4.57'],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
    ],
)
