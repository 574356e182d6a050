"Package metadata, read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages
from setuptools.command.build_py import build_py

root = Path(__file__).parent
ini  = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg  = ini['DEFAULT']

def requirements(name): return cfg[f'{name}_requirements'].split()

on_linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
linux    = [f'{o}; {on_linux}' for o in requirements('linux')]

class BuildWithExperiments(build_py):
    "Adds the pages of nbs/exp to the package as vcd/exp, so that `vcd sweep` finds them outside of a checkout"
    def run(self):
        super().run()
        if self.editable_mode: return   # an editable install finds them in nbs/exp
        folder = Path(self.build_lib)/'vcd'/'exp'
        self.mkpath(str(folder))
        for page in sorted((root/'nbs'/'exp').glob('*.ipynb')): self.copy_file(str(page), str(folder/page.name))

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
    cmdclass={'build_py': BuildWithExperiments},
    zip_safe=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split() + linux,
    extras_require={o: requirements(o) for o in ('analyse', 'torchcodec', 'export', 'dev')},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
)
