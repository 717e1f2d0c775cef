"""The packages of a wheel; everything else about it is in setup.cfg.

The configs are a folder beside the packages in a checkout and lie inside camera3d in a wheel. setup.cfg
has no way to say that together with a search for packages.
"""

from setuptools import find_packages, setup

PACKAGES = ("cache_schema", "camera3d", "demo", "extract", "focalcache", "synthetic_nuscenes", "train")
PAGES = ["*.html", "*.css", "*.js"]

setup(
    packages=[*find_packages(include=[f"{name}*" for name in PACKAGES]), "camera3d.configs"],
    package_dir={"camera3d.configs": "configs"},
    package_data={
        "camera3d.configs": ["*/*.py", "*/*.pth"],
        "cache_schema.pages": PAGES,
        "cache_schema.inspection.report": PAGES,
        "train.comparison": PAGES,
    },
)
