import subprocess,time,statistics,sys,os
B='build/release/bin/'
rounds=int(sys.argv[1]) if len(sys.argv)>1 else 5
layers=sys.argv[2] if len(sys.argv)>2 else '1'
os.path.exists('/tmp/port') and os.unlink('/tmp/port')
srv=subprocess.Popen([B+'refit-server','--listen','127.0.0.1:0','--port-file','/tmp/port','--memory','12GiB','--retain','1','--log-level','error']+os.environ.get('SERVER_ARGS','').split())
while not(os.path.exists('/tmp/port') and open('/tmp/port').read().strip()): time.sleep(.01)
addr='127.0.0.1:'+open('/tmp/port').read().strip()
def trainer(*a):
    p=subprocess.Popen([B+'bench-trainer','--server',addr,'--layers',layers,'--exclude-key-regex',r'lm_head|model\.(vision_tower|embed_vision|language_model\.embed_tokens)',*a],stdin=subprocess.PIPE,stdout=subprocess.PIPE,text=True)
    return p
def cpu(p): f=open(f'/proc/{p.pid}/stat').read().split(); return (int(f[13])+int(f[14]))/100
one=[trainer()]
many=[trainer('--rank',str(r),'--world','8','--ep-size','4','--ep-shard-size','2','--fsdp-size','8') for r in range(8)]
for p in one+many: print(p.stdout.readline().strip(), end=' ')
print()
v=0; T={1:[],8:[]}
for r in range(rounds+1):
    for ps in (one,many):
        v+=1; s0=cpu(srv); c0=sum(map(cpu,ps)); t=time.time()
        for p in ps: p.stdin.write(f'{v}\n'); p.stdin.flush()
        for p in ps: p.stdout.readline()
        t=time.time()-t
        print(len(ps),'%.3f'%t,'server cpu %.2f clients %.2f'%(cpu(srv)-s0,sum(map(cpu,ps))-c0))
        if r: T[len(ps)].append(t)
a,b=statistics.median(T[1]),statistics.median(T[8])
print('one %.3f eight %.3f ratio %.2f'%(a,b,a/b))
for p in one+many: p.stdin.close(); p.wait()
srv.terminate(); srv.wait()
