. /tmp/app_dev/env.sh
M=/work/main/.venv/lib/python3*/site-packages/fiftyone/server
cd $M; exec python main.py --port 5199 --address 127.0.0.1
