"Everything that is said here is read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

ini = ConfigParser(delimiters=['='])
ini.read(Path(__file__).parent/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
linux = [f"{o}; sys_platform == 'linux' and platform_machine == 'x86_64'" for o in cfg['linux_requirements'].split()]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    classifiers=['Development Status :: 4 - Beta', f"Intended Audience :: {cfg['audience']}",
                 f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3'],
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['vcd', 'vcd.*']), include_package_data=True, zip_safe=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split() + linux,
    extras_require={o: cfg[f'{o}_requirements'].split() for o in ('analyse', 'torchcodec', 'dev')},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
)
