"""Pages in JupyterLab, in a headless browser

Left out by default. `pytest -m browser` runs them where Chromium and chromedriver are installed.
"""
import os, shutil, socket, subprocess, sys, time, urllib.request

import pytest

from vcd.run import home

pytestmark = pytest.mark.browser
driver   = shutil.which('chromedriver')
browsers = [shutil.which(o) for o in ('chromium', 'google-chrome', 'chromium-browser')]
browser  = next(filter(None, browsers), None)
flags = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
         'disable-component-update', 'disable-sync', 'disable-dev-shm-usage', 'window-size=1400,1000']

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def answers(url):
    "Whether a server answers at this address"
    try: return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError: return False

def start_jupyter(port, copy, tmp, log):
    "Start JupyterLab on a copy of the checkout; returns the process once it answers"
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--IdentityProvider.token=',
               '--ServerApp.port_retries=0', '--LabApp.expose_app_in_browser=True', f'--port={port}',
               f'--ServerApp.root_dir={copy}']
    env = os.environ | dict(VCD_HOME=str(copy), PYTHONPATH=str(home()), JUPYTER_CONFIG_DIR=str(tmp/'config'))
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=copy)
    end = time.monotonic() + 180
    while not answers(f'http://127.0.0.1:{port}/lab'):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f'JupyterLab did not start; see {log.name}')
        time.sleep(.5)
    return process

def start_browser(profile):
    "A selenium driver of the installed browser, with a fresh profile"
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for o in (*flags, f'user-data-dir={profile}'): options.add_argument(f'--{o}')
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

class Lab:
    "JupyterLab in a browser tab"
    def __init__(self,
        tab,  # A selenium driver
        url,  # Address of JupyterLab
    ):
        self.tab = tab
        self.url = url

    def wait(self, what, condition, seconds=180):
        "Wait until `condition()` is true"
        from selenium.webdriver.support.ui import WebDriverWait
        wait = WebDriverWait(self.tab, seconds, poll_frequency=.5)
        wait.until(lambda _: condition(), f'{what}: not within {seconds} s')

    def js(self, code, *args): return self.tab.execute_script(code, *args)

    def open(self, page):
        "Open a notebook in a new workspace and wait for its kernel"
        self.tab.get(f'{self.url}/lab/workspaces/w{time.time_ns()}/tree/{page}')
        ready = """
            const page = window.jupyterapp && [...jupyterapp.shell.widgets('main')].find(o => o.sessionContext);
            if (page) { jupyterapp.shell.activateById(page.id); window.page = page }
            return page?.sessionContext?.session?.kernel?.status == 'idle'"""
        self.wait(f'{page} opened', lambda: self.js(ready))

    def run_all(self, seconds=900):
        "Run all cells, wait, and return them with their outputs"
        self.js("jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = true)")
        self.wait('all cells run', lambda: self.js('return window.ran'), seconds)
        return self.js('return window.page.content.model.sharedModel.toJSON().cells')

    def scroll_to(self, text):
        "Scroll to the first cell that contains `text`; JupyterLab renders only cells near the window"
        self.js("""
            const notebook = window.page.content;
            const i = notebook.widgets.findIndex(o => o.model.sharedModel.source.includes(arguments[0]));
            notebook.activeCellIndex = i;
            return notebook.scrollToItem(i, 'end')""", text)
        time.sleep(2)

    def send_keys(self, selector, *keys):
        "Send keys to the last element that a CSS selector matches"
        from selenium.webdriver.common.by import By
        self.tab.find_elements(By.CSS_SELECTOR, selector)[-1].send_keys(*keys)

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    pytest.importorskip('selenium')
    if not driver: pytest.skip('chromedriver is not installed')
    if not browser: pytest.skip('neither Chromium nor Chrome is installed')
    tmp  = tmp_path_factory.mktemp('lab')
    copy = tmp/'copy'
    shutil.copytree(home()/'nbs', copy/'nbs')
    for o in ('settings.ini', 'README.md'): shutil.copy(home()/o, copy)
    port = free_port()
    with open(tmp/'log', 'w') as log:
        jupyter = start_jupyter(port, copy, tmp, log)
        try:
            tab = start_browser(tmp/'profile')
            try: yield Lab(tab, f'http://127.0.0.1:{port}')
            finally: tab.quit()
        finally:
            jupyter.terminate()
            jupyter.wait(20)

def failures(cells):
    "The errors of cells, and the code of cells that did not run"
    code    = [c for c in cells if c['cell_type'] == 'code' and ''.join(c['source']).strip()]
    errors  = [o for c in code for o in c['outputs'] if o['output_type'] == 'error']
    skipped = [c['source'] for c in code if not c['execution_count']]
    return errors + skipped

needs_data = pytest.mark.skipif(not os.environ.get('VCD_DATA'), reason='its last cells need real clips: VCD_DATA')

@pytest.mark.parametrize('page', ['exp/e00_tour', pytest.param('selection/03_saliency', marks=needs_data)])
def test_run_all(lab, page, tmp_path):
    lab.open(f'nbs/{page}.ipynb')
    cells = lab.run_all()
    lab.tab.save_screenshot(str(tmp_path/'page.png'))
    assert not failures(cells)

def test_browse_moves_and_plays(lab, tmp_path):
    from selenium.webdriver.common.keys import Keys
    lab.open('nbs/01_show.ipynb')
    assert not failures(lab.run_all())
    lab.scroll_to('b = browse(')
    def image(): return lab.js("return document.querySelector('.widget-image').src")
    before = image()
    lab.send_keys('.widget-slider .noUi-handle', Keys.ARROW_LEFT)
    lab.wait('the slider changes the image', lambda: image() != before, 60)
    lab.tab.save_screenshot(str(tmp_path/'moved.png'))
    lab.js("document.querySelector('.widget-play button').click()")
    images = set()
    def is_playing():
        images.add(image())
        return len(images) > 3
    lab.wait('the images change while it plays', is_playing, 60)
    lab.tab.save_screenshot(str(tmp_path/'playing.png'))

def test_videos_play(lab):
    lab.scroll_to('page = play_many(')
    code = "return [...document.querySelectorAll('video')].map(o => [o.videoWidth, o.currentTime > 0, o.error])"
    lab.wait('both videos play', lambda: lab.js(code) == [[32, True, None]]*2, 60)
