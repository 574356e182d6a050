"A server on this machine that answers as the Hugging Face Hub does, for what publishing and loading a dataset need"
import base64, hashlib, json, re, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(BaseHTTPRequestHandler):
    "Datasets of the owner of the token 'right': name -> dict with `private`, and `commits`, a list of {path: bytes}"
    repos = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        if not self.is_owner(): return self.refuse(401, '', 'Invalid credentials in Authorization header')
        if self.path == '/api/repos/create': return self.create(json.loads(body))
        if self.path == '/api/validate-yaml': return self.answer(dict(errors=[], warnings=[]))
        name,what = re.fullmatch(r'/api/datasets/(\w+/[\w-]+)/(preupload|commit)/main', self.path).groups()
        if what == 'preupload':
            files = [dict(path=o['path'], uploadMode='regular', shouldIgnore=False) for o in json.loads(body)['files']]
            return self.answer(dict(files=files))
        self.commit(name, [json.loads(o) for o in body.splitlines()])

    def create(self, asked):
        name  = f"{asked['organization']}/{asked['name']}"
        known = name in self.repos
        hidden = asked.get('private') or asked.get('visibility') == 'private'   # by the version of `huggingface_hub`
        self.repos.setdefault(name, dict(private=hidden, commits=[]))
        self.answer(dict(url=f'https://huggingface.co/datasets/{name}'), 409 if known else 200)

    def commit(self, name, entries):
        files = dict(self.repos[name]['commits'][-1]) if self.repos[name]['commits'] else {}
        for o in entries:
            if o['key'] == 'file': files[o['value']['path']] = base64.b64decode(o['value']['content'])
        self.repos[name]['commits'].append(files)
        self.answer(dict(commitUrl=f'https://huggingface.co/datasets/{name}', commitOid=sha(files)))

    def do_GET(self, body=True):
        found = re.fullmatch(r'(?:/api)?/datasets/(\w+/[\w-]+)(?:/(resolve|tree)/([^/?]+))?/?([^?]*).*', self.path)
        name,what,revision,file = found.groups()
        repo = self.repos.get(name)
        if repo is None or repo['private'] and not self.is_owner(): return self.refuse(401, 'RepoNotFound')
        if repo.get('gated'): return self.refuse(403, 'GatedRepo')
        if repo.get('broken'): return self.refuse(451, '', 'Removed on request')
        known = {'main': -1} | {sha(o): i for i,o in enumerate(repo['commits'])}
        if what is None: return self.answer(dict(id=name, private=repo['private'], sha='0'*40, siblings=[]))
        if revision not in known: return self.refuse(404, 'RevisionNotFound')
        files = repo['commits'][known[revision]]
        entries = [dict(type='file', path=k, oid='0'*40, size=len(v)) for k,v in files.items()]
        if what == 'tree': return self.answer(entries)
        if file not in files: return self.refuse(404, 'EntryNotFound')
        etag = hashlib.sha256(files[file]).hexdigest()
        self.send(200, files[file], {'X-Repo-Commit': sha(files), 'ETag': f'"{etag}"'}, body)

    def do_HEAD(self): self.do_GET(body=False)

    def is_owner(self): return self.headers.get('Authorization') == 'Bearer right'
    def answer(self, o, status=200): self.send(status, json.dumps(o).encode(), {'Content-Type': 'application/json'})
    def refuse(self, status, code, said=''): self.send(status, b'', {'X-Error-Code': code, 'X-Error-Message': said})

    def send(self, status, data, headers, body=True):
        self.send_response(status)
        for k,v in {**headers, 'Content-Length': str(len(data))}.items():
            if v: self.send_header(k, v)
        self.end_headers()
        if body and self.command != 'HEAD': self.wfile.write(data)

    def log_message(self, *_): pass


def sha(files): return hashlib.sha1(json.dumps({k: len(v) for k,v in files.items()}).encode()).hexdigest()

def serve():
    "Start a server; returns it and its address"
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('OwnHub', (Hub,), dict(repos={})))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f'http://127.0.0.1:{server.server_port}'
