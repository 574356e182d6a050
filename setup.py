"Package metadata, read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

root = Path(__file__).parent
ini  = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg  = ini['DEFAULT']

def requirements(name): return cfg[f'{name}_requirements'].split()

on_linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
linux    = [f'{o}; {on_linux}' for o in requirements('linux')]

setup(
    name=cfg['dist_name'],
    version=cfg['version'],
    description=cfg['description'],
    keywords=cfg['keywords'].split(),
    license='Apache-2.0',
    classifiers=['Development Status :: 4 - Beta', f"Intended Audience :: {cfg['audience']}",
                 f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3'],
    long_description=(root/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['vcd', 'vcd.*']),
    include_package_data=True,
    zip_safe=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split() + linux,
    extras_require={o: requirements(o) for o in ('analyse', 'torchcodec', 'dev')},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
)
