"Pages as people open them: JupyterLab in a headless browser. Left out by default: `pytest -m browser`, where chromedriver is installed"
import base64, json, os, shutil, socket, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import pytest

from vcd.run import home

pytestmark = pytest.mark.browser
driver = shutil.which('chromedriver')
chrome = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
flags  = ('headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update '
          'disable-sync disable-dev-shm-usage window-size=1400,1000').split()

def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]

def ask(url, body=None, method=None, timeout=300):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {'Content-Type': 'application/json'}, method=method)
    try: return json.load(urllib.request.urlopen(request, timeout=timeout)).get('value')
    except urllib.error.HTTPError as e: raise RuntimeError(e.read().decode()[:2000]) from None

def until(what, test, seconds=180):
    end = time.time() + seconds
    while not (got := test()):
        if time.time() > end: raise TimeoutError(f'{what}: not within {seconds} s')
        time.sleep(.5)
    return got

def answers(url):
    try: return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError: return False

class Lab:
    "A tab with JupyterLab in it, moved over WebDriver's own HTTP: no package is needed"
    def __init__(self,
        server,   # Where chromedriver listens
        url,      # Where JupyterLab does
        profile,  # A fresh folder for the browser
    ):
        options = dict(args=[f'--{o}' for o in (*flags, f'user-data-dir={profile}')], binary=chrome)
        asked   = dict(capabilities=dict(alwaysMatch={'browserName': 'chrome', 'goog:chromeOptions': options}))
        self.lab,self.at = url,f'{server}/session'
        self.at += '/' + ask(self.at, asked)['sessionId']
        ask(f'{self.at}/timeouts', dict(script=280_000))

    def js(self, code, *args): return ask(f'{self.at}/execute/sync', dict(script=code, args=args))

    def open(self, page):
        ask(f'{self.at}/url', dict(url=f'{self.lab}/lab/workspaces/w{time.time_ns()}/tree/{page}'))
        ready = ("let w = window.jupyterapp && [...jupyterapp.shell.widgets('main')].find(o => o.sessionContext);"
                 "if (w) { jupyterapp.shell.activateById(w.id); window.page = w }"
                 "return w?.sessionContext?.session?.kernel?.status == 'idle'")
        until(f'{page} opened', lambda: self.js(ready))

    def run_all(self, seconds=900):
        "Run All, wait, and the cells as they then stand"
        cells = 'window.page.content.model.sharedModel.toJSON().cells'
        self.js("jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = true)")
        until('every cell run', lambda: self.js('return window.ran'), seconds)
        return self.js(f'return {cells}')

    def see(self, text):
        "Scroll to the first cell that holds this text; Lab draws what is near the window and no more"
        self.js("let nb = window.page.content, i = nb.widgets.findIndex(o => o.model.sharedModel.source.includes(arguments[0]));"
                "nb.activeCellIndex = i; return nb.scrollToItem(i, 'end')", text)
        time.sleep(2)

    def picture(self, path): Path(path).write_bytes(base64.b64decode(ask(f'{self.at}/screenshot')))

    def press(self, css, keys):
        found = ask(f'{self.at}/elements', dict(using='css selector', value=css))
        ask(f'{self.at}/element/{list(found[-1].values())[0]}/value', dict(text=keys))

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    if not (driver and chrome): pytest.skip('no chromedriver, or no Chromium that it drives')
    tmp  = tmp_path_factory.mktemp('lab')
    copy = tmp/'copy'
    shutil.copytree(home()/'nbs', copy/'nbs')
    for o in ('settings.ini', 'README.md'): shutil.copy(home()/o, copy)
    env = {**os.environ, 'VCD_HOME': str(copy), 'PYTHONPATH': str(home()), 'JUPYTER_CONFIG_DIR': str(tmp/'config')}
    url,server = (f'http://127.0.0.1:{free_port()}' for _ in range(2))
    jupyter = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--IdentityProvider.token=',
               '--ServerApp.port_retries=0',
               '--LabApp.expose_app_in_browser=True', f'--port={url.split(":")[-1]}', f'--ServerApp.root_dir={copy}']
    with open(tmp/'log', 'w') as log:
        started = [subprocess.Popen(o, env=env, stdout=log, stderr=log, cwd=copy)
                   for o in (jupyter, [driver, f'--port={server.split(":")[-1]}'])]
        try:
            until('JupyterLab and chromedriver up', lambda: answers(f'{url}/lab') and answers(f'{server}/status'))
            tab = Lab(server, url, tmp/'profile')
            yield tab
            ask(tab.at, method='DELETE')
        finally:
            for o in started[::-1]: o.terminate(); o.wait(20)

def faults(cells):
    code = [c for c in cells if c['cell_type'] == 'code' and ''.join(c['source']).strip()]
    return [o for c in code for o in c['outputs'] if o['output_type'] == 'error'] + [c['source'] for c in code if not c['execution_count']]

wants_clips = pytest.mark.skipif(not os.environ.get('VCD_DATA'), reason='its last cells want real clips: VCD_DATA')

@pytest.mark.parametrize('page', ['nbs/exp/e00_tour', pytest.param('saliency', marks=wants_clips)])
def test_run_all(lab, page, tmp_path):
    lab.open(f'{page}.ipynb')
    cells = lab.run_all()
    lab.picture(tmp_path/'page.png')
    assert not faults(cells)

def test_browser_moves_and_plays(lab, tmp_path):
    lab.open('01_show.ipynb')
    assert not faults(lab.run_all())
    lab.see('b = browse(')
    shown  = lambda: lab.js("return document.querySelector('.widget-image').src")
    before = shown()
    lab.press('.widget-slider .noUi-handle', '\ue012')   # the arrow to the left
    until('the slider moves the picture', lambda: shown() != before, 60)
    lab.picture(tmp_path/'moved.png')
    lab.js("document.querySelector('.widget-play button').click()")
    frames = set()
    until('it plays', lambda: frames.add(shown()) or len(frames) > 3, 60)
    lab.picture(tmp_path/'playing.png')

def test_videos_play(lab):
    lab.see('page = play_many(')
    played = lambda: lab.js("return [...document.querySelectorAll('video')].map(o => [o.videoWidth, o.currentTime > 0, o.error])")
    until('both videos play', lambda: played() == [[32, True, None]]*2, 60)
