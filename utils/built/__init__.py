"What the chapters built: imported by later chapters as `from utils.built import optim`."
