"python3 start.py bench"

import sys

from utils.bench import runner

sys.exit(runner.main())
