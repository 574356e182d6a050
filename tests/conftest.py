"Tests print no progress, use a temporary cache, and work on this checkout"
import os, signal, tempfile
from pathlib import Path

os.environ['VCD_QUIET'] = '1'
os.environ['VCD_HOME']  = str(Path(__file__).parent.parent)
_cache = tempfile.TemporaryDirectory(prefix='vcd-tests-')   # deleted when the tests end
os.environ['VCD_CACHE'] = _cache.name

# a job started in the background ignores SIGINT, and so do its children; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)

def pytest_configure(config):
    config.addinivalue_line('markers',
                            'browser: pages in JupyterLab in a headless browser; run by `pytest -m browser` only')

def pytest_collection_modifyitems(config, items):
    if 'browser' in config.getoption('-m'): return
    left_out = [o for o in items if o.get_closest_marker('browser')]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [o for o in items if o not in left_out]
